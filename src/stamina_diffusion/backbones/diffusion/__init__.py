"""Text-to-image diffusion: one file a model family, which says where its sites, words and loss are."""
