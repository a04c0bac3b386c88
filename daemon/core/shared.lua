-- SPDX-License-Identifier: MIT
-- The books of one budget that many hosts share: who holds how many of an AppID's N tokens. daemon/core/shared.c
-- makes the calls; docs/MANY-HOSTS.md says why the sum keeps to N. Redis runs a script from its beginning to its
-- end with nothing in between, and by its own clock, so this is the one place where tokens change hands.
--
-- What is counted for a host is never less than what it may use: `held` while it is in touch; once it has been silent
-- for a while, also its share, which it will then go on with; when all that it sent has surely rested, the share alone.
--
-- KEYS[1], hosts: a host's name -> its record; "!" .. name -> AppIDs that it should ask about; "~" .. name .. "~" ..
--   incarnation -> until when an earlier process of that name may have something under way; "+" .. name .. "~" ..
--   incarnation -> one that said goodbye; "#next~" .. name .. "~" .. incarnation -> one that would follow another by
--   that name; "#life", "#run", "#quiet" and so on.
-- KEYS[2], one AppID: a host's name -> its record; "~" .. name .. "~" .. incarnation, or "~" .. number -> tokens on
--   their way home from an earlier process, or from one that left;
--   "#life", "#known", "#last". A word of a host that KEYS[1] does not know is worth nothing.
-- Times are milliseconds of the server's clock.

local LEASE = 1000   -- shared.c's: without an answer for so long a host no longer relies on what it holds
local DELAY = 10     -- what milliseconds and clocks of different speed may differ by in a lease
local SILENT = 1500  -- after an answer that a host has confirmed: not heard for so long, it will want its share
local WAIT = 2000    -- how long an engine without memory waits for somebody who has one
local HEARD = 1600   -- more than SILENT: what was said so long ago, all who are not silent have heard
local KNOWN = 2500   -- more than two LEASE: likewise for a name, which beats alone tell, and all who are in touch
local LATE = 1200000 -- nothing arrives from a process that ended so long ago: longer than TCP tries
local ROUND = 10000  -- what cannot be divided goes round in so long: each time a token is missing for a moment
local LONG_ROUND, ENOUGH = 30000, 10 -- and in so long, when it is less than a tenth of what each has anyway
local MOVE = 1250    -- in what a token has come from one to another: its window, and what is said

local op, name, incarnation, run = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local sequence, heard, settle, share = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local life = ARGV[9] -- that the caller knows, "-": none
local hosts_key, app_key = KEYS[1], KEYS[2]
local app_id = app_key:match('[^:]*$')
local prefix = hosts_key:sub(1, -6)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function all(key)
  local flat, map = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

local function set(key, field, ...)
  redis.call('HSET', key, field, table.concat({ ... }, ' '))
end

-- A word, then numbers.
local function read(text)
  local word, rest = text:match('^(%S+) ?(.*)$')
  local numbers = {}
  for number in rest:gmatch('%S+') do numbers[#numbers + 1] = tonumber(number) end
  return word, numbers
end

local function is_name(field) return not field:find('^[#~!+]') end

local function sorted(map)
  local names = {}
  for key in pairs(map) do names[#names + 1] = key end
  table.sort(names)
  return names
end

-- The hosts.

local raw = all(hosts_key)
local hosts, old = {}, {}
local counted = {} -- for the AppIDs of an earlier process: what it held, what it was to go on with, or the more of them;
                   -- ALL: likewise, and its share of those of which it had not yet said anything in this life
local HELD, SHARE, MOST, ALL = 0, 1, 2, 3
local greatest = settle -- of all that may have something under way

local function put_host(j)
  local h = hosts[j]
  set(hosts_key, j, h.incarnation, h.sequence, h['until'], h.settle, h.share, h.heard, h.state, h.joined, h.slower,
    h.back)
end

-- No time lies further ahead than it can have been set: the clock was set back, and then it is set again, so that
-- nobody waits for longer than if it had just been heard.
local function not_beyond(record, field, most)
  if record[field] <= now + most then return false end
  record[field] = now + most
  return true
end

-- A time to come, and how far ahead it was set.
local function set_end(key, field, ends, ...)
  set(key, field, ends, math.max(0, ends - now), ...)
end

local function read_end(key, field, text)
  local ends, ahead, rest = text:match('^(%S+) (%S+)(.*)$')
  local record = { ends = tonumber(ends) }
  if not_beyond(record, 'ends', tonumber(ahead)) then set(key, field, record.ends, ahead .. rest) end
  return record.ends, tonumber(rest)
end

local function load_hosts()
  for field, text in pairs(raw) do
    if is_name(field) then
      local word, v = read(text)
      local h = { incarnation = word, sequence = v[1], ['until'] = v[2], settle = v[3], share = v[4], heard = v[5],
                  state = v[6], joined = v[7], slower = v[8], back = v[9] }
      hosts[field] = h
      local changed = not_beyond(h, 'until', LEASE + DELAY)
      for _, past in ipairs({ 'joined', 'slower' }) do changed = not_beyond(h, past, 0) or changed end
      -- It was heard before the clock was set back, and nobody knows how long; it will be heard again.
      if h.heard > now then h.heard, changed = now - SILENT, true end
      if changed then put_host(field) end
      greatest = math.max(greatest, h.settle)
    elseif field:sub(1, 1) == '~' then
      old[field], counted[field] = read_end(hosts_key, field, text)
      greatest = math.max(greatest, old[field] - now)
    elseif field:sub(1, 1) == '+' and tonumber(text) < now then
      redis.call('HDEL', hosts_key, field)
    end
  end
  for field, ends in pairs(old) do
    if ends <= now then
      redis.call('HDEL', hosts_key, field)
      old[field] = nil
    end
  end
end

local quiet = 0

local function set_quiet(ends)
  quiet = ends
  set_end(hosts_key, '#quiet', ends)
end

local function is_alive(h) return h.heard + SILENT > now end
local function may_have_more(h) return h['until'] + h.settle > now end

-- Has a host ask about an AppID; or "*": who there is has changed, it knows which AppIDs that concerns; or "!": about
-- all. The message is quick; what is noted here is sure, as the host is told of it at its next beat.
local function note(j, what)
  local noted = raw['!' .. j] or ''
  if noted == '!' or (' ' .. noted .. ' '):find(' ' .. what .. ' ', 1, true) then return end
  if #noted > 4000 then
    noted = '!'
  else
    noted = noted == '' and what or noted .. ' ' .. what
  end
  raw['!' .. j] = noted
  set(hosts_key, '!' .. j, noted)
end

local function poke(j, what)
  redis.call('PUBLISH', prefix .. 'to:' .. j, what)
  note(j, what)
end

local function poke_all()
  redis.call('PUBLISH', prefix .. 'all', '*')
  for j in pairs(hosts) do note(j, '*') end
end

-- Takes note of who fell silent, and for how long: others may have more then, or must have less.
local function watch()
  local changed = false
  local n = 0
  for j, h in pairs(hosts) do
    local state = is_alive(h) and 0 or may_have_more(h) and 1 or 2
    if state == 2 and h.share == 0 then
      redis.call('HDEL', hosts_key, j, '!' .. j)
      hosts[j] = nil
      changed = true
    else
      n = n + 1
      if state ~= h.state then
        h.state = state
        put_host(j)
        changed = true
      end
    end
  end
  if raw['#hosts'] ~= tostring(n) then
    set(hosts_key, '#hosts', n)
    changed = true
  end
  if quiet > 0 and quiet <= now then
    set_quiet(0)
    changed = true
  end
  if changed then poke_all() end
end

local function touch()
  local h = hosts[name]
  -- What was written of it no longer counts; it is its share, until it says what it has.
  if not may_have_more(h) then h.back = sequence end
  for j, other in pairs(hosts) do
    -- Those who rely on their share when they are cut off must know first how long it may have to send on.
    if j ~= name and settle > h.settle and settle > other.settle then h.slower = now end
  end
  h.sequence, h.settle, h.share = sequence, settle, share
  h['until'] = now + LEASE + DELAY
  -- What lies ahead was said by another clock, before it was set back.
  if heard <= now then h.heard = math.max(h.heard, heard) end
  put_host(name)
end

local function beat_reply()
  local names = {}
  for _, j in ipairs(sorted(hosts)) do
    if hosts[j].share == 1 then names[#names + 1] = j end
  end
  local noted = raw['!' .. name] or ''
  redis.call('HDEL', hosts_key, '!' .. name)
  return { 'ok', now, greatest, raw['#life'], noted, table.concat(names, ' ') }
end

-- A new life: the server is another process, or has lost its memory. What was granted before is unknown until those
-- who have it come and say so, or cannot have it any more. Those who shared and are cut off now are known to others.
local function begin_life()
  redis.call('DEL', hosts_key)
  hosts, old = {}, {}
  set(hosts_key, '#run', run)
  raw = { ['#run'] = run, ['#life'] = run .. ':' .. now, ['#began'] = tostring(now) }
  set(hosts_key, '#life', raw['#life'])
  set(hosts_key, '#began', now)
  set_quiet(now + WAIT)
end

local function restore()
  local most, at, names = math.max(greatest, tonumber(ARGV[10])), tonumber(ARGV[11]), ARGV[13] or ''
  if now >= quiet then return end
  set_quiet(math.max(quiet, math.min(tonumber(raw['#began']), now) + LEASE + DELAY + most))
  -- Of two from the same life the later one knows who has said goodbye since then.
  local of_life, of_time = (raw['#told'] or life .. ' 0'):match('(%S+) (%S+)')
  if of_life ~= life then
    of_life, at = '-', 0 -- from now on whoever somebody knows is one
  elseif tonumber(of_time) < at then
    for j, h in pairs(hosts) do
      if h.incarnation == '-' and not (' ' .. names .. ' '):find(' ' .. j .. ' ', 1, true) then
        redis.call('HDEL', hosts_key, j, '!' .. j)
        hosts[j] = nil
      end
    end
  else
    return
  end
  set(hosts_key, '#told', of_life, at)
  for j in names:gmatch('%S+') do
    if j ~= name and not hosts[j] then
      hosts[j] = { incarnation = '-', sequence = 0, ['until'] = 0, settle = most, share = 1, heard = 0, state = 2,
                   joined = now, slower = 0, back = 0 }
      put_host(j)
    end
  end
end

local function hello()
  local is_fresh = life == '-'
  if raw['#run'] ~= run then begin_life() end
  -- It has been on its way for longer than the goodbye that came after it.
  if raw['+' .. name .. '~' .. incarnation] then return { 'taken' } end
  local h = hosts[name]
  if h and h.incarnation ~= incarnation then
    if not is_fresh and h.incarnation ~= '-' and h['until'] > now then return { 'taken' } end
    -- Its word may have been on its way for longer than it lived, and longer than it took another to come by its name.
    -- Who is there says it again.
    local heralds = '#next~' .. name .. '~'
    if not raw[heralds .. incarnation] then
      set(hosts_key, heralds .. incarnation, now)
      return { 'again' }
    end
    for field in pairs(raw) do
      if field:sub(1, #heralds) == heralds then redis.call('HDEL', hosts_key, field) end
    end
    -- What the process before this one sent must rest as if it still ran. It may have read a longer timeout than it
    -- came to tell; if so, this one has read it too.
    local rests = math.max(h.settle, settle)
    local ends = h['until'] + rests > now and h['until'] or 0
    -- One that was silent may have gone on with its share until just now, but for one that has left the pledge that
    -- it had not.
    local has_pledged = h.incarnation == ARGV[12]
    if h.share == 1 and not is_alive(h) and not has_pledged then ends = math.max(ends, now) end
    if h.incarnation == '-' and not is_fresh then ends = 0 end -- it is the one that was cut off, and says what it has
    local what = not may_have_more(h) and SHARE or (is_alive(h) or has_pledged) and HELD or MOST
    if h.heard == 0 and not has_pledged then what = ALL end
    if ends > 0 then set_end(hosts_key, '~' .. name .. '~' .. h.incarnation, ends + rests, what) end
    h = nil
  end
  if h and sequence <= h.sequence then return { 'old' } end
  -- A fresh process has nothing, and nothing was promised to it.
  hosts[name] = h or { incarnation = incarnation, heard = is_fresh and 1 or 0, state = 0, joined = now, slower = 0, back = 0,
                       ['until'] = 0, settle = 0 }
  -- In a life that it does not know, what it heard last says nothing of what is known of it here.
  if life ~= raw['#life'] then heard = 0 end
  if not is_fresh and life ~= raw['#life'] then restore() end
  touch()
  if not h then poke_all() end
  watch()
  return beat_reply()
end

-- One AppID.

local entries, gone = {}, {} -- of hosts; tokens of those who left
local meta

local function put_entry(j)
  local e = entries[j]
  set(app_key, j, e.incarnation, e.held, e.want, e.told, e.share, e.n, e.at, e.right)
end

local function load_app()
  meta = all(app_key)
  if meta['#life'] ~= raw['#life'] then
    redis.call('DEL', app_key)
    meta = { ['#known'] = '0', ['#last'] = '0' }
    set(app_key, '#life', raw['#life'])
    set(app_key, '#known', 0)
  end
  for field, text in pairs(meta) do
    if field:sub(1, 1) == '~' then
      local g = {}
      g.ends, g.held = read_end(app_key, field, text)
      if g.ends <= now then redis.call('HDEL', app_key, field) else gone[field] = g end
    elseif is_name(field) then
      local word, v = read(text)
      entries[field] = { incarnation = word, held = v[1], want = v[2], told = v[3], share = v[4], n = v[5], at = v[6], right = v[7] }
    end
  end
end

-- Tokens that rest until they are at home, though nobody holds them. They are no longer among those that may change
-- hands while the books are not complete.
local function let_go(held, ends, field)
  if held <= 0 or ends <= now then return end
  if not field or gone[field] then
    field = '~' .. tonumber(meta['#last'] or 0) + 1
    meta['#last'] = field:sub(2)
    set(app_key, '#last', meta['#last'])
  end
  meta['#known'] = tostring(tonumber(meta['#known']) - held)
  set(app_key, '#known', meta['#known'])
  set_end(app_key, field, ends, held)
  gone[field] = { held = held, ends = ends }
end

-- What belongs to an earlier process of a host, or to a host that is forgotten, becomes what it is.
local function sort_out()
  for j, e in pairs(entries) do
    local h = hosts[j]
    if not h or h.incarnation ~= e.incarnation then
      local field = '~' .. j .. '~' .. e.incarnation
      local what = counted[field]
      let_go(what == HELD and e.held or what == SHARE and e.share or math.max(e.held, e.share), old[field] or 0, field)
      redis.call('HDEL', app_key, j)
      entries[j] = nil
    elseif e.at < h.back then
      -- It was silent for so long that nothing else was counted. That is no right to use it: others may still be
      -- giving back what they had of it.
      e.held, e.right = e.share, math.min(e.right, e.share)
    end
  end
end

-- What a host may use, and may still have under way, as far as can be known of it.
local function count_of(h, e, per_host)
  if not e then
    -- It has not yet said what it has here since the books were lost; it may have gone on with a share, whether or
    -- not it is to share from now on.
    return h.heard == 0 and per_host or 0
  elseif not may_have_more(h) then
    return e.share
  elseif is_alive(h) then
    return e.held
  end
  return math.max(e.held, e.share)
end

-- Gives each of @names as much of @most as it wants, and nobody more than others want and do not get. Those who want
-- more than that take turns at what is left of the division. Returns what each gets, what is left over, and when who
-- is to ask again. While the sum is over, turns would let two have the same.
local function divide(most, names, wants, is_over)
  local gets, hungry, asks = {}, {}, {}
  local by_want = { unpack(names) }
  table.sort(by_want, function(a, b)
    if wants[a] ~= wants[b] then return wants[a] < wants[b] end
    return a < b
  end)
  local level
  for i, j in ipairs(by_want) do
    local equal = math.floor(most / (#by_want - i + 1))
    if not level and wants[j] > equal then level = equal end
    gets[j] = level or wants[j]
    most = most - gets[j]
  end
  if not level or is_over or most == 0 then return gets, level and 0 or most, asks end
  for _, j in ipairs(names) do
    if gets[j] < wants[j] then hungry[#hungry + 1] = j end
  end
  -- At the end of each turn one of them hands on to one other, so that few tokens are missing at a time. He asks when
  -- his turn is over; who gets it is told, and asks only if that was long ago.
  local turn = math.floor((level < ENOUGH and ROUND or LONG_ROUND) / #hungry)
  -- Where there are many hosts for each token, it is on its way to the next one for most of a short turn.
  turn = math.max(turn, math.floor(MOVE / most))
  local first = math.floor(now / turn)
  for i = 0, #hungry - 1 do
    local j = hungry[(first + i) % #hungry + 1]
    if i < most then
      gets[j] = gets[j] + 1
      asks[j] = (first + i + 1) * turn
    else
      asks[j] = (first + i - most + 1) * turn + LEASE
    end
  end
  return gets, 0, asks
end

local function sync()
  local d, want, n = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
  local has_share, wants_share, per_host = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
  local uses = tonumber(ARGV[16]) -- of what it holds, by what it was told before
  load_app()
  sort_out()

  local me = entries[name]
  local right = me and me.right or 0
  local was = me and { n = me.n, share = me.share } or { n = n, share = 0 }
  if not me then
    me = { told = 0, share = 0 }
    entries[name] = me
    meta['#known'] = tostring(tonumber(meta['#known']) + math.min(d, uses))
    set(app_key, '#known', meta['#known'])
  end
  -- What a host says of itself is true, whatever was written here.
  me.incarnation, me.held, me.want, me.n, me.at = incarnation, d, want, n, sequence

  local alive, wants, least = {}, {}, n
  for _, j in ipairs(sorted(entries)) do
    if j == name or is_alive(hosts[j]) then
      alive[#alive + 1] = j
      wants[j] = entries[j].want
      least = math.min(least, entries[j].n)
    end
  end
  n = least

  -- What is counted for all others, of that for those who are not in touch, and what is promised to others.
  local others, silent, promised, in_hands = 0, 0, 0, d
  local in_touch = {}
  for _, j in ipairs(alive) do in_touch[j] = true end
  for j, h in pairs(hosts) do
    if j ~= name then
      local count = count_of(h, entries[j], per_host)
      others = others + count
      if not in_touch[j] then silent = silent + count end
      promised = promised + (entries[j] and entries[j].share or count)
      in_hands = in_hands + (entries[j] and entries[j].held or 0)
    end
  end
  local soonest = 0 -- when something comes free by itself
  local function soon(at)
    if at > now and (soonest == 0 or at < soonest) then soonest = at end
  end
  for _, g in pairs(gone) do
    others, silent = others + g.held, silent + g.held
    soon(g.ends)
  end
  for field, ends in pairs(old) do
    if counted[field] == ALL and not gone[field] then
      others, silent = others + per_host, silent + per_host
      soon(ends)
    end
  end
  for j, e in pairs(entries) do
    if j ~= name and not in_touch[j] then soon(hosts[j]['until'] + hosts[j].settle) end
  end

  -- A share is kept for as long as the host may rely on it. A new one is promised only when the books are complete,
  -- and when others know the name: if the books are lost, it is on them to say that somebody relies on his share.
  local fits = math.max(0, n - promised)
  if now < quiet or now < hosts[name].joined + KNOWN then fits = 0 end
  me.share = math.max(math.min(has_share, wants_share), math.min(wants_share, fits))
  if me.n > was.n or me.share < was.share then
    -- There may now be a share for those for whom none was left.
    for _, j in ipairs(alive) do
      if j ~= name then poke(j, app_id) end
    end
  end

  local to_divide = math.max(0, n - silent)
  local is_over = others + d > n
  if is_over then
    -- Somebody will want his share: all give of what they have until the sum is right, the most who has most. By
    -- what they have, not by what they want, so that nobody is told to keep what another is told to keep as well.
    for _, j in ipairs(alive) do wants[j] = entries[j].held end
  end
  local gets, left, asks = divide(to_divide, alive, wants, is_over)
  local extra = math.floor(left / #alive)

  local grant = math.max(0, math.min(gets[name] + extra, n - others) - d)
  if now < quiet then
    grant = math.min(grant, math.max(0, tonumber(meta['#known']) - in_hands))
    soon(quiet)
  end
  local is_slower = now < hosts[name].slower + HEARD
  if is_slower then
    grant = 0
    soon(hosts[name].slower + HEARD)
  end
  me.held = d + grant

  local is_short = is_over
  for _, j in ipairs(alive) do
    if entries[j].held < gets[j] then is_short = true end
  end

  -- What is left over is anybody's, and nobody has to give it back before another needs it.
  me.told = gets[name] + extra
  if not is_short then me.told = math.max(me.told, me.held) end
  -- What it has under way since before it fell silent may be more than was counted for it in the end, and others have
  -- that. It is true, but it is no right to use it again. While the books are not complete nobody can tell but the
  -- host itself, which knows what it was using.
  right = math.max(right, now < quiet and uses + grant or n - others)
  me.right = math.min(me.held, right)
  local usable = math.min(me.told, right)
  if is_slower then usable = math.min(usable, uses) end
  local free = n - others - me.held
  for _, j in ipairs(alive) do
    local e = entries[j]
    local target = gets[j] + extra
    if j ~= name and is_short and e.held > target and e.told > target then
      e.told = target
      put_entry(j)
      poke(j, app_id)
    elseif j ~= name and free > 0 and not is_over and e.held < gets[j] and now >= quiet then
      free = free - (gets[j] - e.held)
      poke(j, app_id)
    end
  end
  put_entry(name)

  if asks[name] then soon(asks[name]) end
  local noted = raw['!' .. name]
  if noted then
    noted = (' ' .. noted .. ' '):gsub(' ' .. app_id .. ' ', ' '):match('^%s*(.-)%s*$')
    if noted == '' then redis.call('HDEL', hosts_key, '!' .. name) else set(hosts_key, '!' .. name, noted) end
  end
  local again = me.held < want and soonest > 0 and soonest - now or 0
  return { 'ok', now, greatest, me.held, usable, me.share, again }
end

-- A host no longer shares this AppID. Others may have what it held as it comes home.
local function bye()
  load_app()
  sort_out()
  if entries[name] then
    redis.call('HDEL', app_key, name)
    entries[name] = nil
    for i = 10, #ARGV, 2 do let_go(tonumber(ARGV[i]), now + tonumber(ARGV[i + 1])) end
    for j in pairs(entries) do poke(j, app_id) end
  end
  return { 'ok', now, greatest }
end

local function leave()
  redis.call('HDEL', hosts_key, name, '!' .. name)
  set(hosts_key, '+' .. name .. '~' .. incarnation, now + LATE)
  -- What it sent last may take as long as anything of it.
  set_end(hosts_key, '~' .. name .. '~' .. incarnation, now + settle, HELD)
  hosts[name] = nil
  poke_all()
  return { 'ok', now, greatest }
end

local lives = raw['#run'] == run and raw['#life']
if lives then
  load_hosts()
  quiet = read_end(hosts_key, '#quiet', raw['#quiet'])
end
if op == 'hello' then return hello() end

local h = hosts[name]
if not lives or life ~= raw['#life'] or not h or h.incarnation == '-' then return { 'stale' } end
if h.incarnation ~= incarnation then return { 'taken' } end
-- It was overtaken, on another connection, by what was said later.
if sequence <= h.sequence then return { 'old' } end
touch()
if op == 'sync' then return sync() end
if op == 'bye' then return bye() end
if op == 'leave' then return leave() end
watch()
return beat_reply()
