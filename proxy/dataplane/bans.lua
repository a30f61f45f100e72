-- Bans that all replicas share, and the scores that lead to them. One call lifts bans, adds scores, takes bans over and
-- tells what has changed, in this order. What it decides is what proxy/limits/scores.py decides for one process.
--
-- Keys, all of one slot, none without an expiry:
--   KEYS[1]    {mcpm}:bans           sorted set: address -> end of its ban; of one that was lifted, end of its mention
--   KEYS[2]    {mcpm}:bans:why       hash: address -> JSON of kind, score, times, by, note; '' when it was lifted
--   KEYS[3]    {mcpm}:bans:changes   sorted set: address -> number of its last change
--   KEYS[4]    {mcpm}:bans:state     hash: epoch (of this memory), changes (the last number)
--   KEYS[5..]  {mcpm}:score:ADDRESS  hash: score, at, times, free (end of the last ban); of each in lifts, scores, bans
-- Times are milliseconds by the clock of Redis; one that goes back lengthens what is there, and ends nothing.
--
-- ARGV[1] is JSON: threshold, half_life, first, longest, most (bans kept), mention (of a lifted one), page, since, by,
--   lifts {address...}, scores {{address, weight, kind}...}, bans {{address, ms, why, times, replace}...}.
-- Returns epoch, number of the last change told, then address, ms left and why ('' for lifted) of each change.

local bans, why, changes, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format('%.0f', number) end

local function put(address, till, reason)
  redis.call('ZADD', bans, whole(till), address)
  redis.call('HSET', why, address, reason)
  redis.call('ZADD', changes, redis.call('HINCRBY', state, 'changes', 1), address)
end

local function blocked_until(address)
  local till = tonumber(redis.call('ZSCORE', bans, address) or 0)
  if till <= now or redis.call('HGET', why, address) == '' then return 0 end
  return till
end

local function forget(addresses)
  for _, address in ipairs(addresses) do
    redis.call('ZREM', bans, address)
    redis.call('ZREM', changes, address)
    redis.call('HDEL', why, address)
  end
end

-- Keep what is known of an address until nothing of it would matter: 1 % of the threshold, half a repetition.
local function remember(key, score, times, free)
  redis.call('HSET', key, 'score', score, 'at', whole(now), 'times', times, 'free', whole(free))
  local ms = ask.half_life * math.log(math.max(2, 100 * score / ask.threshold)) / math.log(2)
  if times > 0 then
    ms = math.max(ms, free - now + ask.longest * math.log(math.max(1, 2 * times)) / math.log(2))
  end
  redis.call('PEXPIRE', key, whole(math.max(1000, ms)))
end

local function count(key, address, weight, kind)
  if blocked_until(address) > 0 then return end
  local was = redis.call('HMGET', key, 'score', 'at', 'times', 'free')
  local times, free = tonumber(was[3] or 0), tonumber(was[4] or now)
  local passed = math.max(0, now - tonumber(was[2] or now))
  local score = tonumber(was[1] or 0) * 2 ^ (-passed / ask.half_life) + weight
  if score < ask.threshold then return remember(key, score, times, free) end
  times = times * 2 ^ (-math.max(0, now - free) / ask.longest)
  local before = math.floor(times + 0.5)
  local till = now + math.min(ask.longest, ask.first * 2 ^ math.min(before, 40))
  put(address, till, cjson.encode({kind = kind, score = score, times = before + 1, by = ask.by, note = ''}))
  remember(key, 0, times + 1, till)
end

redis.call('HSETNX', state, 'epoch', time[1] .. '.' .. time[2])
forget(redis.call('ZRANGEBYSCORE', bans, '-inf', whole(now), 'LIMIT', 0, 200))
local key = 4
for _, address in ipairs(ask.lifts) do
  key = key + 1
  redis.call('DEL', KEYS[key])
  if blocked_until(address) > 0 then put(address, now + ask.mention, '') end
end
for _, each in ipairs(ask.scores) do
  key = key + 1
  count(KEYS[key], each[1], each[2], each[3])
end
for _, each in ipairs(ask.bans) do
  key = key + 1
  -- One that ends a little later is of a replica that decided in the same moment: the first one stands, and is told.
  local slack = math.min(2000, each[2] / 10)
  if each[5] or blocked_until(each[1]) < now + each[2] - slack then
    put(each[1], now + each[2], each[3])
    if each[4] > 0 then remember(KEYS[key], 0, each[4], now + each[2]) end
  end
end
local over = redis.call('ZCARD', bans) - ask.most
if over > 0 then forget(redis.call('ZRANGE', bans, 0, over - 1)) end

local last = redis.call('ZREVRANGE', bans, 0, 0, 'WITHSCORES')
local expiry = math.max(now + 86400000, tonumber(last[2] or 0) + 3600000)
for index = 1, 4 do redis.call('PEXPIREAT', KEYS[index], whole(expiry)) end

local answer = {redis.call('HGET', state, 'epoch'), whole(ask.since)}
local news = redis.call('ZRANGEBYSCORE', changes, '(' .. whole(ask.since), '+inf', 'WITHSCORES', 'LIMIT', 0, ask.page)
for index = 1, #news, 2 do
  answer[2] = news[index + 1]
  answer[#answer + 1] = news[index]
  answer[#answer + 1] = whole(tonumber(redis.call('ZSCORE', bans, news[index]) or now) - now)
  answer[#answer + 1] = redis.call('HGET', why, news[index]) or ''
end
return answer
