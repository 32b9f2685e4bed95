"""A Llama-like net, full attention in every layer: the baseline that Samba is held against (Touvron et al. 2023)."""
