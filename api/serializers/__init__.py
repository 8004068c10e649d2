"""DRF serializers: the JSON of REST requests and responses."""
