-- The exports hold a row for every change of an order, and some rows twice: the latest one counts.
WITH ranked AS (
  SELECT
    order_id,
    customer_id,
    CAST(order_date AS DATE) AS order_date,
    status,
    channel,
    country,
    items,
    amount,
    discount,
    CAST(updated_at AS TIMESTAMP) AS updated_at,
    ROW_NUMBER() OVER (PARTITION BY order_id ORDER BY updated_at DESC) AS newest_first
  FROM order_files
)
SELECT
  order_id,
  COALESCE(NULLIF(customer_id, ''), 'guest') AS customer_id,
  order_date,
  status,
  COALESCE(NULLIF(channel, ''), 'unknown') AS channel,
  country,
  items,
  amount - COALESCE(discount, 0.0) AS amount,
  updated_at
FROM ranked
WHERE newest_first = 1
