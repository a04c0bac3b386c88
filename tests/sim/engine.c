/* SPDX-License-Identifier: MIT */
/*
 * The commands that the script uses, written in Lua over a table of tables, with what
 * Redis does to their arguments: everything is text once it is stored.
 */
#include "engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

struct engine {
	lua_State *lua;
	int script;
	engine_publish_fn publish;
	void *arg;
	char error[256];
};

static const char prelude[] =
	"store, dump, time, full, dirty = {}, {}, { '0', '0' }, false, false\n"
	"local commands = {}\n"
	"local function copy(from)\n"
	"  local to = {}\n"
	"  for key, hash in pairs(from) do\n"
	"    to[key] = {}\n"
	"    for field, value in pairs(hash) do to[key][field] = value end\n"
	"  end\n"
	"  return to\n"
	"end\n"
	"function save() dump = copy(store) end\n"
	"function restore() store = copy(dump) end\n"
	"function flush() store = {} end\n"
	"function commands.TIME() return time end\n"
	"function commands.DEL(key) store[key] = nil end\n"
	"function commands.HGETALL(key)\n"
	"  local flat = {}\n"
	"  for field, value in pairs(store[key] or {}) do\n"
	"    flat[#flat + 1] = field\n"
	"    flat[#flat + 1] = value\n"
	"  end\n"
	"  return flat\n"
	"end\n"
	"function commands.HSET(key, field, value)\n"
	"  store[key] = store[key] or {}\n"
	"  store[key][field] = tostring(value)\n"
	"end\n"
	"function commands.HDEL(key, ...)\n"
	"  local hash = store[key]\n"
	"  if not hash then return end\n"
	"  for _, field in ipairs({ ... }) do hash[field] = nil end\n"
	"  if not next(hash) then store[key] = nil end\n"
	"end\n"
	"function commands.PUBLISH(channel, message) publish(channel, message) end\n"
	/* Without memory Redis refuses a command that may need some, unless the script has
	 * written already. */
	"redis = { call = function(name, ...)\n"
	"  if name == 'HSET' and full and not dirty then error('OOM') end\n"
	"  dirty = dirty or name == 'HSET' or name == 'HDEL' or name == 'DEL'\n"
	"  return commands[name](...)\n"
	"end }\n";

static int on_publish(lua_State *lua)
{
	struct engine *e = lua_touserdata(lua, lua_upvalueindex(1));

	e->publish(e->arg, luaL_checkstring(lua, 1), luaL_checkstring(lua, 2));
	return 0;
}

static void must(struct engine *e, int r)
{
	if (r == 0)
		return;
	fprintf(stderr, "%s\n", lua_tostring(e->lua, -1));
	abort();
}

struct engine *engine_new(engine_publish_fn publish, void *arg)
{
	struct engine *e = calloc(1, sizeof(*e));

	assert(e);
	e->publish = publish;
	e->arg = arg;
	e->lua = luaL_newstate();
	assert(e->lua);
	luaL_openlibs(e->lua);
	lua_pushlightuserdata(e->lua, e);
	lua_pushcclosure(e->lua, on_publish, 1);
	lua_setglobal(e->lua, "publish");
	must(e, luaL_loadstring(e->lua, prelude) || lua_pcall(e->lua, 0, 0, 0));
	must(e, luaL_loadbuffer(e->lua, shared_script, strlen(shared_script), "=shared.lua"));
	e->script = luaL_ref(e->lua, LUA_REGISTRYINDEX);
	return e;
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	lua_close(e->lua);
	free(e);
}

const char *engine_error(const struct engine *e)
{
	return e->error;
}

static void add(lua_State *lua, int i, const char *text)
{
	lua_pushstring(lua, text);
	lua_rawseti(lua, -2, i);
}

static void set_arguments(lua_State *lua, const struct shared_call *c, uint64_t us)
{
	char text[32];
	int n = 0;

	lua_newtable(lua);
	add(lua, 1, c->keys[0]);
	add(lua, 2, c->keys[1]);
	lua_setglobal(lua, "KEYS");
	lua_newtable(lua);
	for (size_t i = 0; i < c->n_args; i++)
		add(lua, ++n, c->args[i]);
	if (c->members)
		add(lua, ++n, c->members);
	lua_setglobal(lua, "ARGV");
	lua_newtable(lua);
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)(us / 1000000));
	add(lua, 1, text);
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)(us % 1000000));
	add(lua, 2, text);
	lua_setglobal(lua, "time");
}

size_t engine_call(struct engine *e, const struct shared_call *c, uint64_t us,
		   struct shared_value *out, size_t most)
{
	lua_State *lua = e->lua;
	size_t n;

	lua_settop(lua, 0);
	lua_pushboolean(lua, 0);
	lua_setglobal(lua, "dirty");
	set_arguments(lua, c, us);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, e->script);
	if (lua_pcall(lua, 0, 1, 0) != 0) {
		(void)snprintf(e->error, sizeof(e->error), "%s", lua_tostring(lua, -1));
		return 0;
	}
	n = lua_objlen(lua, 1);
	assert(n <= most);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(lua, 1, (int)i + 1);
		out[i] = (struct shared_value){ .is_text = lua_type(lua, -1) == LUA_TSTRING };
		if (out[i].is_text)
			out[i].text = lua_tolstring(lua, -1, &out[i].len);
		else
			out[i].number = (int64_t)lua_tonumber(lua, -1);
	}
	return n; /* the texts are on the stack */
}

static void run(struct engine *e, const char *function)
{
	lua_settop(e->lua, 0);
	lua_getglobal(e->lua, function);
	must(e, lua_pcall(e->lua, 0, 0, 0));
}

void engine_set_full(struct engine *e, bool is_full)
{
	lua_pushboolean(e->lua, is_full);
	lua_setglobal(e->lua, "full");
}

void engine_flush(struct engine *e)
{
	run(e, "flush");
}

void engine_dump(struct engine *e)
{
	run(e, "save");
}

void engine_restore(struct engine *e)
{
	run(e, "restore");
}

/* Leaves the hash on the stack. */
static bool find(struct engine *e, const char *key)
{
	lua_settop(e->lua, 0);
	lua_getglobal(e->lua, "store");
	lua_getfield(e->lua, 1, key);
	return lua_istable(e->lua, 2);
}

const char *engine_get(struct engine *e, const char *key, const char *field)
{
	if (!find(e, key))
		return NULL;
	lua_getfield(e->lua, 2, field);
	return lua_tostring(e->lua, 3);
}

void engine_forget(struct engine *e, const char *key, const char *field)
{
	if (!find(e, key))
		return;
	lua_pushnil(e->lua);
	lua_setfield(e->lua, 2, field);
}

const char *engine_next(struct engine *e, const char *key, const char *field)
{
	if (!find(e, key))
		return NULL;
	if (field)
		lua_pushstring(e->lua, field);
	else
		lua_pushnil(e->lua);
	return lua_next(e->lua, 2) ? lua_tostring(e->lua, 3) : NULL;
}
