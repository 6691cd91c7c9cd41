SELECT
  article_id,
  title,
  body,
  language,
  CAST(updated_at AS TIMESTAMP) AS updated_at
FROM article_files
WHERE body IS NOT NULL
