"""The resources of the API, and the pages around them."""
