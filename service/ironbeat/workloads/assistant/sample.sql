-- sample_warehouse: one of the four
INSERT INTO assistant.warehouses (code, name, also) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING

-- sample_products: numbered, of five kinds
INSERT INTO assistant.products (sku, name, unit)
SELECT (ARRAY['BOLT', 'NUT', 'CABLE', 'LAMP', 'PUMP'])[kind] || '-' || lpad(i::text, 5, '0'),
    (ARRAY['螺絲 Bolt', '螺帽 Nut', '電纜 Cable', '燈具 Lamp', '水泵 Pump'])[kind] || ' ' || i,
    (ARRAY['pcs', 'pcs', 'm', 'pcs', 'pcs'])[kind]
FROM generate_series(1, %(products)s) AS i
    CROSS JOIN LATERAL (SELECT 1 + mod(i, 5) AS kind) AS k
ON CONFLICT DO NOTHING

-- sample_stock: three of four products in each warehouse; about one of ten is running out
INSERT INTO assistant.stock (warehouse, sku, on_hand, reserved, reorder_level)
SELECT w.code, p.sku, amount, mod(hash, 1 + amount / 3),
    CASE WHEN mod(hash / 16, 10) = 0 THEN amount ELSE 5 END
FROM assistant.warehouses AS w
    CROSS JOIN assistant.products AS p
    CROSS JOIN LATERAL (SELECT mod(abs(hashtext(w.code || p.sku)::bigint), 100000)::integer AS hash) AS h
    CROSS JOIN LATERAL (SELECT 10 + mod(h.hash, 490) AS amount) AS a
WHERE mod(hash, 4) > 0
ON CONFLICT DO NOTHING
