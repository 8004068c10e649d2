"""Gateways side by side: their installation, their start, and the load that is put on them."""
