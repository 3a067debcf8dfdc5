"""What ppl_bif costs and what it gives, beside its peers."""
