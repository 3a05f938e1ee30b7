"""What happens, shown: spans, metrics and logs, all made of a request's row when it ends."""
