SELECT
  order_date,
  country,
  COUNT(*) AS orders,
  SUM(items) AS items,
  SUM(amount) AS revenue
FROM orders
WHERE status <> 'cancelled'
GROUP BY order_date, country
