"""Sessions in trackers that exist: one module for each, imported by its name, since each needs a package of its own.

`client_session.trackers.snowplow` is for ``snowplow-tracker`` (the extra ``snowplow``),
`client_session.trackers.opentelemetry` for ``opentelemetry-sdk`` (the extra ``opentelemetry``).
"""
