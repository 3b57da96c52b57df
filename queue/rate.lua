-- Spend from several buckets at once, or from none: GCRA, atomic, on the Redis 6.2 subset.
--
-- KEYS[1] is the prefix with its hash tag. ARGV[1] is the time in ms ('' for the server's own clock), then of each
-- charge the bucket's name (a keyed hash), the ms that are spent, and '1' if they are owed anyway. Answers the ms to wait, 0 when all was spent.
--
--   P:rate:NAME  STRING when the bucket will be full again; expires then
local P = KEYS[1]
local MINUTE = 60000
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end

local after, wait = {}, 0
for i = 2, #ARGV, 3 do
  local key = P .. ':rate:' .. ARGV[i]
  local full = math.max(now, after[key] or tonumber(redis.call('GET', key) or now)) + tonumber(ARGV[i + 1])
  if ARGV[i + 2] == '1' then
    full = math.min(full, now + 2 * MINUTE)
  else
    wait = math.max(wait, full - now - MINUTE)
  end
  after[key] = full
end
if wait > 0 then return string.format('%.0f', math.ceil(wait)) end
for key, full in pairs(after) do
  redis.call('SET', key, string.format('%.0f', full), 'PX', string.format('%.0f', math.max(1, full - now)))
end
return '0'
