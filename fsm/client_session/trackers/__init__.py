"""Integrations with existing trackers. Import each by its module name, since each needs its own package.

`client_session.trackers.snowplow` needs ``snowplow-tracker`` (the extra ``snowplow``).
`client_session.trackers.opentelemetry` needs ``opentelemetry-sdk`` (the extra ``opentelemetry``).
"""
