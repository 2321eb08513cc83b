"""What should run when: cadences and policies (pure), definitions, the planner, beat."""
