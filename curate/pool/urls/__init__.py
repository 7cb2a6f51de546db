"""Lists of URLs as a pool: what the recipe says of one, its rows, and the shards that are downloaded for them."""
