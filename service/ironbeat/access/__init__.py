"""Who may look and who may change, and what was changed: people, sessions, the audit."""
