"""mergekit's documents: read in `recipes`, and planned here as mergekit 0.1.5 would carry them out."""
