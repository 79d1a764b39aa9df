"""Methods that predict, from records of past transfers, how sources will do on a new target."""
