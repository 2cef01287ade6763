"""Lightning callbacks: they ask the module for samples, and never import it."""
