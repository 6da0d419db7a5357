"""What a network's sites are, and what its loss on a concept is: one part for each kind of network."""
