"""Who may do what. Knows neither HTTP nor storage."""
