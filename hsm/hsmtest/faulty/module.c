/*
 * A PKCS#11 module that stands before another one and does as a file says: the faults of vendors' libraries, on demand.
 *
 * REAL is the path of the library behind it, CONTROL that of the file, LOGINS that of a file to which each result of C_Login is added.
 * The file holds one word: "hang" (until the word is gone), "slow" (a quarter of a second for each signature), "crash", "wrong"
 * (signatures with a bit turned over), "late" (the signature is made, and CKR_DEVICE_ERROR answered), "close" (all
 * sessions, once for each change of the file), or a hexadecimal CKR that C_SignInit answers with. An absent or empty file is no fault.
 * "unclear" has C_Verify answer CKR_DEVICE_ERROR, whatever the signature. "hang-login" and "crash-login" do to C_Login what "hang" and
 * "crash" do to C_Sign, and "slow-login" has it take half a second. "sick-rsa" has C_SignInit answer CKR_FUNCTION_FAILED to
 * RSASSA-PKCS1-v1_5 alone, and "mute-" with the number of a slot has C_GetTokenInfo answer CKR_DEVICE_ERROR of that slot alone.
 * "locked" says of every token that its user PIN is locked, and "hardware" of every slot that it is one of hardware;
 * these two are no faults but what another token would say. "telling" has C_GetAttributeValue tell a CKA_VALUE that is sensitive, and
 * "wrapping" has C_WrapKey wrap what is not extractable: octets that mean nothing, where the library behind refuses. "vanish" has nothing
 * be found once the mechanisms were described.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long ulong;
typedef ulong (*function)();

enum {
	functions = 68,
	initialize = 0, slot_info = 5, token_info = 6, mechanism_info = 8, open_session = 12, close_session = 13, close_all = 14, login = 18, get_attributes = 24, find = 27,
	sign_init = 42, sign = 43, verify = 49, wrap = 60
};

struct attribute {
	ulong type;
	void *value;
	ulong length;
};

struct list {
	unsigned char version[2];
	function of[functions];
};

static struct list ours;
static struct list *real;
static ulong slots[64];
static int known;

/* SoftHSM does not survive that a session is closed while it signs, and that is not the fault to be shown. */
static pthread_rwlock_t closing = PTHREAD_RWLOCK_INITIALIZER;

static void word(char *to, size_t size)
{
	FILE *f = fopen(CONTROL, "r");
	to[0] = 0;
	if (!f)
		return;
	if (!fgets(to, (int)size, f))
		to[0] = 0;
	fclose(f);
	to[strcspn(to, "\n")] = 0;
}

static void hang(const char *on)
{
	char w[32];
	do {
		usleep(20000);
		word(w, sizeof w);
	} while (strcmp(w, on) == 0);
}

/* Twice volatile: a compiler that sees the null pointer leaves the crash out. */
static volatile int *volatile nowhere;
static void crash(void) { *nowhere = 0; }

/* In CK_SLOT_INFO and in CK_TOKEN_INFO, 96 octets of text stand before the flags. */
static void flag(unsigned char *info, ulong bit)
{
	ulong flags;
	memcpy(&flags, info + 96, sizeof flags);
	flags |= bit;
	memcpy(info + 96, &flags, sizeof flags);
}

/* "swap:A:B": from the second C_Initialize on that finds the word, the tokens in slots A and B have changed places. */
static int armed, swapped;
static ulong one, other;

static ulong our_initialize(void *args)
{
	char w[64], *end;
	ulong result = real->of[initialize](args);
	word(w, sizeof w);
	if (result == 0 && strncmp(w, "swap:", 5) == 0) {
		one = strtoul(w + 5, &end, 10);
		other = strtoul(end + 1, NULL, 10);
		swapped = armed;
		armed = 1;
	}
	return result;
}

static ulong placed(ulong slot)
{
	if (!swapped)
		return slot;
	return slot == one ? other : slot == other ? one : slot;
}

static ulong our_slot_info(ulong slot, unsigned char *info)
{
	char w[32];
	ulong result = real->of[slot_info](slot, info);
	word(w, sizeof w);
	if (result == 0 && strcmp(w, "hardware") == 0)
		flag(info, 0x4); /* CKF_HW_SLOT */
	return result;
}

static ulong our_token_info(ulong slot, unsigned char *info)
{
	char w[32];
	ulong result = real->of[token_info](placed(slot), info);
	word(w, sizeof w);
	if (strncmp(w, "mute-", 5) == 0 && slot == strtoul(w + 5, NULL, 10))
		return 0x30; /* CKR_DEVICE_ERROR */
	if (result == 0 && strcmp(w, "locked") == 0)
		flag(info, 0x40000); /* CKF_USER_PIN_LOCKED */
	if (result == 0 && strncmp(w, "refuse-", 7) == 0) {
		ulong flags;
		memcpy(&flags, info + 96, sizeof flags);
		flags &= ~0x30000ul; /* CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY */
		memcpy(info + 96, &flags, sizeof flags);
	}
	return result;
}

static ulong our_open_session(ulong slot, ulong flags, void *app, void *notify, ulong *session)
{
	int i;
	slot = placed(slot);
	for (i = 0; i < known && slots[i] != slot; i++)
		;
	if (i == known && known < 64)
		slots[known++] = slot;
	return real->of[open_session](slot, flags, app, notify, session);
}

static int refused;

/* "refuse-crash" and "refuse-hang": a token that does not tell of tries, of a library that fails once a PIN was refused. */
static ulong our_close_session(ulong session)
{
	char w[32];
	word(w, sizeof w);
	if (refused && strcmp(w, "refuse-hang") == 0)
		hang(w);
	if (refused && strcmp(w, "refuse-crash") == 0)
		crash();
	return real->of[close_session](session);
}

static ulong our_login(ulong session, ulong user, void *pin, ulong length)
{
	char w[32];
	ulong result;
	FILE *f;
	word(w, sizeof w);
	if (strcmp(w, "hang-login") == 0)
		hang(w);
	if (strcmp(w, "slow-login") == 0)
		usleep(500000);
	if (strcmp(w, "crash-login") == 0)
		crash();
	result = real->of[login](session, user, pin, length);
	if (result != 0)
		refused = 1;
	f = fopen(LOGINS, "a");
	if (f) {
		fprintf(f, "%lx\n", result);
		fclose(f);
	}
	return result;
}

static ulong our_sign_init(ulong session, void *mechanism, ulong key)
{
	char w[32];
	static struct timespec closed;
	struct stat now;
	ulong result;
	word(w, sizeof w);
	if (strncmp(w, "0x", 2) == 0)
		return strtoul(w, NULL, 16);
	if (strcmp(w, "sick-rsa") == 0 && *(ulong *)mechanism == 1)
		return 0x6; /* CKR_FUNCTION_FAILED */
	if (strcmp(w, "close") == 0 && stat(CONTROL, &now) == 0) {
		pthread_rwlock_wrlock(&closing);
		if (memcmp(&closed, &now.st_mtim, sizeof closed) != 0) {
			closed = now.st_mtim;
			for (int i = 0; i < known; i++)
				real->of[close_all](slots[i]);
		}
		pthread_rwlock_unlock(&closing);
	}
	pthread_rwlock_rdlock(&closing);
	result = real->of[sign_init](session, mechanism, key);
	pthread_rwlock_unlock(&closing);
	return result;
}

static ulong our_sign(ulong session, void *data, ulong length, unsigned char *signature, ulong *size)
{
	char w[32];
	ulong result;
	word(w, sizeof w);
	if (strcmp(w, "hang") == 0)
		hang(w);
	if (strcmp(w, "slow") == 0)
		usleep(250000);
	if (strcmp(w, "crash") == 0)
		crash();
	pthread_rwlock_rdlock(&closing);
	result = real->of[sign](session, data, length, signature, size);
	pthread_rwlock_unlock(&closing);
	if (result == 0 && signature && strcmp(w, "wrong") == 0)
		signature[*size - 1] ^= 1;
	if (result == 0 && signature && strcmp(w, "late") == 0)
		return 0x30; /* CKR_DEVICE_ERROR */
	return result;
}

static ulong our_verify(ulong session, void *data, ulong length, void *signature, ulong size)
{
	char w[32];
	ulong result = real->of[verify](session, data, length, signature, size);
	word(w, sizeof w);
	return strcmp(w, "unclear") == 0 ? 0x30 /* CKR_DEVICE_ERROR */ : result;
}

/* octets hands out some that mean nothing, as every function of PKCS#11 hands out what is long: first how many there are. */
static ulong octets(unsigned char *to, ulong *length)
{
	enum { many = 40 };
	if (to && *length < many)
		return 0x150; /* CKR_BUFFER_TOO_SMALL */
	if (to)
		memset(to, 0x42, many);
	*length = many;
	return 0;
}

static ulong our_get_attributes(ulong session, ulong object, struct attribute *wanted, ulong count)
{
	char w[32];
	ulong room = count == 1 ? wanted->length : 0;
	ulong result = real->of[get_attributes](session, object, wanted, count);
	word(w, sizeof w);
	if (result != 0x11 || count != 1 || wanted->type != 0x11 || strcmp(w, "telling") != 0) /* CKR_ATTRIBUTE_SENSITIVE, CKA_VALUE */
		return result;
	wanted->length = room;
	return octets(wanted->value, &wanted->length);
}

static ulong our_wrap(ulong session, void *mechanism, ulong under, ulong key, unsigned char *to, ulong *length)
{
	char w[32];
	ulong room = *length;
	ulong result = real->of[wrap](session, mechanism, under, key, to, length);
	word(w, sizeof w);
	if (result != 0x6a || strcmp(w, "wrapping") != 0) /* CKR_KEY_UNEXTRACTABLE */
		return result;
	*length = room;
	return octets(to, length);
}

static int vanished;

static ulong our_mechanism_info(ulong slot, ulong mechanism, void *info)
{
	char w[32];
	word(w, sizeof w);
	vanished = strcmp(w, "vanish") == 0;
	return real->of[mechanism_info](slot, mechanism, info);
}

static ulong our_find(ulong session, ulong *objects, ulong most, ulong *count)
{
	ulong result = real->of[find](session, objects, most, count);
	if (result == 0 && vanished)
		*count = 0;
	return result;
}

ulong C_GetFunctionList(struct list **list)
{
	if (!real) {
		void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
		function get = library ? (function)dlsym(library, "C_GetFunctionList") : NULL;
		if (!get || get(&real) != 0)
			return 5; /* CKR_GENERAL_ERROR */
		ours = *real;
		ours.of[initialize] = (function)our_initialize;
		ours.of[3] = (function)C_GetFunctionList;
		ours.of[slot_info] = (function)our_slot_info;
		ours.of[token_info] = (function)our_token_info;
		ours.of[mechanism_info] = (function)our_mechanism_info;
		ours.of[get_attributes] = (function)our_get_attributes;
		ours.of[find] = (function)our_find;
		ours.of[wrap] = (function)our_wrap;
		ours.of[open_session] = (function)our_open_session;
		ours.of[close_session] = (function)our_close_session;
		ours.of[login] = (function)our_login;
		ours.of[sign_init] = (function)our_sign_init;
		ours.of[sign] = (function)our_sign;
		ours.of[verify] = (function)our_verify;
	}
	*list = &ours;
	return 0;
}
