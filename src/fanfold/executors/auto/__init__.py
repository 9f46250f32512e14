"""The place that is chosen by measuring the first tasks."""
