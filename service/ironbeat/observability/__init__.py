"""Logs, error reports and metrics, for every process of the suite."""
