"""What each word behind `ddp-assist` does, one module a verb."""
