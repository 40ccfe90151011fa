"""A compiled stand-in for NVML with scripted readings, for the real `pynvml` binding to load."""
