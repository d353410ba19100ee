"""Integrations with existing trackers. Import each module by name, since each requires its own package.

`client_session.trackers.snowplow` requires ``snowplow-tracker`` (the ``snowplow`` extra).
`client_session.trackers.opentelemetry` requires ``opentelemetry-sdk`` (the ``opentelemetry`` extra).
"""
