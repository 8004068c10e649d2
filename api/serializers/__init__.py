"""What resources look like on the wire."""
