"""Files of weights: deltas read, matched, extracted and written."""
