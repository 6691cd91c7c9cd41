WITH days AS (
  SELECT DISTINCT order_date AS as_of_date FROM orders
),
history AS (
  SELECT
    days.as_of_date,
    orders.customer_id,
    orders.order_date,
    orders.amount,
    orders.order_date > days.as_of_date - INTERVAL '30 days' AS is_recent
  FROM days
  JOIN orders ON orders.order_date <= days.as_of_date
  WHERE orders.status <> 'cancelled'
)
SELECT
  history.as_of_date,
  history.customer_id,
  customers.country,
  SUM(CASE WHEN history.is_recent THEN 1 ELSE 0 END) AS orders_30d,
  SUM(CASE WHEN history.is_recent THEN history.amount ELSE 0.0 END) AS spend_30d,
  CAST((date_part('epoch', history.as_of_date) - date_part('epoch', MAX(history.order_date))) / 86400 AS BIGINT)
    AS days_since_last_order
FROM history
JOIN customers ON customers.customer_id = history.customer_id
GROUP BY history.as_of_date, history.customer_id, customers.country
