"""MaskGIT: tokens drawn a few at a time, the most certain first (Chang et al. 2022, Yu et al. 2024)."""
