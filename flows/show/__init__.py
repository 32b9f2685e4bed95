"""Answers as text and pages: status, cost, history, lineage, what differs between releases."""
