-- The sums of all processes (sums.py). KEYS[1] is the prefix, ARGV[1] the operation, ARGV[2] the time in ms ('' for the
-- server's own clock), ARGV[3] after how many ms a process is gone.
--
--   P:m        HASH name -> sum              P:mp:PROCESS  STRING the last turn that was added
--   P:mh       ZSET process -> heard at      P:mk          ZSET process -> can't renew its signing keys since
local P = KEYS[1]
local call = redis.call
local now = tonumber(ARGV[2])
if not now then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local function int(n) return string.format('%.0f', n) end

for _, gone in ipairs(call('ZRANGEBYSCORE', P .. ':mh', '-inf', int(now - tonumber(ARGV[3])))) do
  call('ZREM', P .. ':mh', gone)
  call('ZREM', P .. ':mk', gone)
end

if ARGV[1] == 'read' then
  local since = call('ZRANGE', P .. ':mk', 0, 0, 'WITHSCORES')[2]
  return {call('HGETALL', P .. ':m'), since and int(now - tonumber(since)) or ''}
end

-- process turn life_ms overdue_ms or '' | name number …
local process, turn = ARGV[4], tonumber(ARGV[5])
call('ZADD', P .. ':mh', int(now), process)
if ARGV[7] == '' then call('ZREM', P .. ':mk', process)
else call('ZADD', P .. ':mk', int(now - tonumber(ARGV[7])), process) end
if turn > tonumber(call('GET', P .. ':mp:' .. process) or 0) then
  for i = 8, #ARGV, 2 do call('HINCRBY', P .. ':m', ARGV[i], ARGV[i + 1]) end
  call('SET', P .. ':mp:' .. process, int(turn), 'PX', ARGV[6])
end
return 1
