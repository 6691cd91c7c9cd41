WITH ranked AS (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY customer_id ORDER BY updated_at DESC) AS newest_first
  FROM customer_files
)
SELECT
  customer_id,
  full_name,
  LOWER(email) AS email,
  NULLIF(phone, '') AS phone,
  country,
  COALESCE(NULLIF(segment, ''), 'household') AS segment,
  CAST(signup_date AS DATE) AS signup_date,
  CAST(updated_at AS TIMESTAMP) AS updated_at
FROM ranked
WHERE newest_first = 1
