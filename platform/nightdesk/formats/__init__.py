"""How Django formats dates and times: one form everywhere, with the zone (FORMAT_MODULE_PATH)."""
