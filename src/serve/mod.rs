//! HTTP: the site, health, metrics, feature look-ups, search, commands.
