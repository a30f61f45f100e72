"""What a database is, as PostgreSQL's catalogue has it: facts that can be compared, without oids."""

from __future__ import annotations

import asyncpg

#: Kind of fact -> query of one text column. Tables of the migration runner are left out.
_FACTS = {
    "relation": """
        SELECT format('%s %s owner=%s rls=%s,%s acl=%s options=%s says=%s', c.oid::regclass, c.relkind,
                      c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity,
                      (SELECT string_agg(a::text, ' ' ORDER BY a::text)
                       FROM unnest(coalesce(c.relacl, acldefault('r', c.relowner))) AS a), c.reloptions,
                      obj_description(c.oid, 'pg_class'))
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema_migrations%'""",
    "column": """
        SELECT format('%s %s.%s %s null=%s default=%s acl=%s says=%s', a.attnum, a.attrelid::regclass, a.attname,
                      format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                      nullif(a.attacl, '{}'),
                      col_description(a.attrelid, a.attnum))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
          AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname NOT LIKE 'schema_migrations%'""",
    "constraint": """
        SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'schema_migrations'""",
    "index": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'schema_migrations'",
    "policy": "SELECT p::text FROM pg_policies p WHERE schemaname = 'public'",
    "trigger": """
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal""",
    "function": """
        SELECT format('%s owner=%s acl=%s says=%s', pg_get_functiondef(oid), proowner::regrole,
                      coalesce(proacl, acldefault('f', proowner)),
                      obj_description(oid, 'pg_proc'))
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'""",
    "view": "SELECT format('%s %s', viewname, definition) FROM pg_views WHERE schemaname = 'public'",
    "materialized view": "SELECT format('%s %s', matviewname, definition) FROM pg_matviews WHERE schemaname = 'public'",
    "schema": """
        SELECT string_agg(a::text, ' ' ORDER BY a::text)
        FROM pg_namespace n, unnest(n.nspacl) AS a WHERE nspname = 'public'""",
}


async def facts(connection: asyncpg.Connection[asyncpg.Record]) -> set[str]:
    """Everything about the public schema."""
    found = set()
    for kind, query in _FACTS.items():
        found |= {f"{kind}: {row[0]}" for row in await connection.fetch(query)}
    return found
