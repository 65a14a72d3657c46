"""The front desk: HTTP. Knows nothing of providers, nothing of arq's workers."""
