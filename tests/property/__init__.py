"""What must hold whatever the market does, and mutants that show it would be noticed."""
