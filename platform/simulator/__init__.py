"""A provider that is part of the product: two dialects, faults on demand, a journal of every call."""
