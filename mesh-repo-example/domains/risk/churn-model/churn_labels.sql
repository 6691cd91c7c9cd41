SELECT
  customer_id,
  CAST(ts AS TIMESTAMP) AS ts,
  churned
FROM churn_labels
