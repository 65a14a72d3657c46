"""The workshop: arq workers that call the providers and write the logs. Knows nothing of HTTP serving."""
