"""Sessions in trackers that exist: one module for each, imported by its name, since each needs a package of its own.

`fsm.trackers.snowplow` is for ``snowplow-tracker`` (the extra ``snowplow``), `fsm.trackers.opentelemetry` for
``opentelemetry-sdk`` (the extra ``opentelemetry``).
"""
