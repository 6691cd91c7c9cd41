SELECT
  event_id,
  customer_id,
  session_id,
  ts,
  CAST(ts AS DATE) AS event_date,
  page,
  amount,
  COALESCE(country, 'unknown') AS country
FROM raw_clicks
WHERE customer_id IS NOT NULL
