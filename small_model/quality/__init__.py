"""What measure_quality.py is made of: cells to sample, their pictures judged, and rows with error bars."""
