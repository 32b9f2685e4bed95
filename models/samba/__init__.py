"""Samba: Mamba and sliding-window attention in turns, a token after the other (Gu & Dao 2023, Ren et al. 2024)."""
