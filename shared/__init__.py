"""The grammar that the API and the workers both speak: settings, events, jobs, log, queue."""
