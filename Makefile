# make            build/inferd and build/ngx_http_infer_module.so (against Debian's nginx-dev)
# make demo       install what is missing, start inferd and nginx on 127.0.0.1:8080, ask something
# make test       install what the tests need and run all of them
# make install    DESTDIR and PREFIX are honoured; docs/nginx.md says what goes where
# make uninstall  takes that away again, if it is told the same places
# make test-gpu   the GPU against the CPU; says so and passes where there is none
# make sanitize-gpu  races, barriers and memory of the kernels; likewise
# GPU_ARCH=80     the kernels for 8.0 and newer alone, in build/ptx80; for both on a newer GPU
# make fuzz       every fuzzer for ten minutes, or FUZZ_S seconds
# ARCH=           for any machine of this architecture; without it for the one that compiles
# SAN=1           AddressSanitizer and UBSan, in build/asan; CPU only
# SAN=thread      ThreadSanitizer, in build/thread; likewise
# NVCC=           build without the CUDA backend; it is built if nvcc is found

# A blank in a path would cut it in two, in rm too.
$(foreach v,CURDIR DESTDIR PREFIX MODULE_DIR UNIT_DIR DOC_DIR DEMO_DIR,$(if \
    $(word 2,x$($v)x),$(error $v has a blank in it, which this Makefile does not take: "$($v)")))

SAN    ?=
GPU_ARCH ?= 90a 80
BUILD  ?= build$(addprefix /,$(SAN:1=asan))$(if $(filter 90a,$(GPU_ARCH)),,/ptx80)
CC     ?= cc
SAN_1   = -O1 -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
SAN_fuzz   = $(SAN_1) -fsanitize=fuzzer-no-link
SAN_thread = -O1 -fsanitize=thread -Wno-tsan
OPT    ?= $(if $(SAN),$(SAN_$(SAN)),-O2)
ARCH   ?= -march=native
CFLAGS  = -std=gnu11 -g $(OPT) $(ARCH) -Wall -Wextra -Werror -MMD -MP -pthread
# Kernels state their own order of sums (vec.h), so nothing may reorder them: no -ffast-math.
KFLAGS  = $(if $(SAN),,-O3) -fno-math-errno -fno-trapping-math
LDLIBS  = -lyajl -lm -pthread

# The CUDA backend: Hopper's own code, and code for whatever else is 8.0 or newer; GPU_ARCH=80: only
# the latter, so that a Hopper runs it too.
NVCC     := $(if $(SAN),,$(or $(NVCC),$(if $(filter undefined,$(origin NVCC)),$(shell command -v nvcc))))
CUDA_DIR  = $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
GENCODE_90a = -gencode arch=compute_90a,code=sm_90a
GENCODE_80  = -gencode arch=compute_80,code=compute_80
NVFLAGS   = -std=c++17 -O3 -lineinfo $(foreach a,$(GPU_ARCH),$(GENCODE_$(a))) \
            -Xcompiler -Wall -MMD -MP
ifneq ($(NVCC),)
CFLAGS += -DHAVE_CUDA -DHAVE_90A=$(if $(filter 90a,$(GPU_ARCH)),1,0)
LDLIBS += -L$(CUDA_DIR)/lib64 -lcudart_static -Wl,-Bstatic -lstdc++ -Wl,-Bdynamic -ldl -lrt
endif

# What each folder may see: the arrows between the rooms.
INC_wire            = wire
INC_kernels         = kernels
INC_engine/text     = engine/text engine wire
INC_engine/grammar  = engine/grammar engine/text engine wire
INC_engine/backend  = engine/backend kernels wire $(if $(NVCC),$(CUDA_DIR)/include)
INC_engine/model    = engine/model engine/backend engine kernels wire
INC_engine/core     = engine/core engine/model engine wire
INC_engine/api      = engine/api engine/core engine/model engine/grammar engine/text engine wire
INC_engine          = $(INC_engine/api)
INC_t               = t $(INC_engine/api) engine/backend kernels
INC_bench           = $(INC_t) $(if $(NVCC),$(CUDA_DIR)/include)

DIRS   = wire kernels engine engine/text engine/grammar engine/backend engine/model engine/core \
         engine/api
SRCS   = $(filter-out engine/main.c,$(foreach d,$(DIRS),$(wildcard $(d)/*.c)))
CU     = $(if $(NVCC),$(wildcard kernels/*.cu))
NO_GPU = $(if $(NVCC),,$(addprefix engine/backend/,cuda.c cuda_graph.c cuda_load.c cuda_open.c))
OBJS   = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(NO_GPU),$(SRCS))) \
         $(CU:%.cu=$(BUILD)/obj/%.cu.o)
LIB    = $(BUILD)/libinferd.a
FUZZERS = $(patsubst t/fuzz/%.c,build/fuzz/%,$(wildcard t/fuzz/*.c))
TESTS  = $(patsubst t/%.c,$(BUILD)/t/%,$(filter-out t/gpu_%.c,$(wildcard t/*.c)))
GPU_PARTS = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard t/gpu_*.c))
BENCH  = $(patsubst bench/%.c,$(BUILD)/bench/%,$(filter-out $(if $(NVCC),,bench/kernels.c) \
         bench/kernels_%.c,$(wildcard bench/*.c)))

# libFuzzer is clang's, which may lack the kernels' _Float16; no fuzzer runs one.
ifeq ($(SAN),fuzz)
CC = clang
build/fuzz/obj/kernels/%: CC = gcc
build/fuzz/obj/kernels/%: OPT = -O2
endif

all: $(BUILD)/inferd module

# Other flags than last time (NVCC=, ARCH=): all objects are made again.
FLAGS = $(strip $(CC) $(CFLAGS) $(NVCC) $(NVFLAGS))
ifneq ($(FLAGS),$(file <$(BUILD)/flags))
.PHONY: $(BUILD)/flags
endif
$(BUILD)/flags:
	@mkdir -p $(@D)
	@echo '$(FLAGS)' > $@

$(BUILD)/inferd: $(BUILD)/obj/engine/main.o $(LIB)
	$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(OBJS)
	@rm -f $@
	ar rcs $@ $^

.SECONDEXPANSION:
$(BUILD)/obj/%.o: %.c Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(if $(filter kernels/%,$<),$(KFLAGS)) \
	    $(addprefix -I,$(INC_$(patsubst %/,%,$(dir $<)))) -c -o $@ $<

$(BUILD)/obj/%.cu.o: %.cu Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -Ikernels -c -o $@ $<

$(BUILD)/t/%: t/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(addprefix -I,$(INC_t)) -o $@ $< $(filter %.o,$^) $(LIB) $(LDLIBS)
$(BUILD)/t/gpu: $(GPU_PARTS)

$(BUILD)/bench/%: bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(addprefix -I,$(INC_bench)) -o $@ $(filter %.c,$^) $(LIB) $(LDLIBS)
$(BUILD)/bench/kernels: $(wildcard bench/kernels_*.c) bench/kernels.h

tests: $(TESTS)
bench: $(BENCH)

# The module, with the flags of the distribution's nginx. NGINX_SRC=dir: a source tree instead.
NGINX_SRC ?= /usr/share/nginx/src
MODULE     = $(BUILD)/ngx_http_infer_module.so
# It takes the job slots of this make (+), which would run it in a dry one too.
DRY = $(strip $(foreach o,n q t,$(findstring $o,$(firstword -$(MAKEFLAGS)))))
module: $(MODULE)
$(MODULE): config $(wildcard ngx_module/*.[ch] wire/*.[ch]) tools/build-module
	$(if $(DRY),,+)tools/build-module $(NGINX_SRC) $(BUILD)/nginx $@ $(if $(SAN),asan)

build/fuzz/%: t/fuzz/%.c $(LIB)
	$(CC) $(CFLAGS) -fsanitize=fuzzer $(addprefix -I,$(INC_t)) -o $@ $< $(LIB) $(LDLIBS)

fuzzers:
	$(MAKE) SAN=fuzz $(FUZZERS)
FUZZ_S ?= 600
fuzz: fuzzers
	FUZZ_S=$(FUZZ_S) perl t/fuzz.pl

# Everything that the tests start, beside the tests themselves.
HELPERS = $(patsubst t/helpers/%.c,$(BUILD)/t/helpers/%,$(wildcard t/helpers/*.c))
helpers: $(HELPERS)

# Quiet: what a newcomer should see is where it listens and what to type; errors show in full.
demo:
	@tools/demo-server check
	@tools/install-deps build
	@echo 'building $(BUILD)/inferd and $(MODULE)'
	@$(MAKE) -s -j$$(nproc) all
	@tools/demo-server start
	@echo; echo '> Hello! What is inferd?'; tools/demo-server ask 'Hello! What is inferd?'; echo
	@tools/demo-server hints

demo-stop:
	@tools/demo-server stop

# C tests first (twice: as built for use, and under ASan and UBSan), then a real nginx with both.
test:
	tools/install-deps test
	$(MAKE) all tests helpers bench
	$(MAKE) SAN=1 build/asan/inferd tests helpers module
	$(MAKE) fuzzers
	t/run.pl tools/tidy.pl $(TESTS) $(TESTS:build/%=build/asan/%) $(sort $(wildcard t/*.t t/*.py)) \
	    $(addprefix asan:,t/proxy.t t/api_client.py t/e2e_openai.py t/hostile.py t/faults.py \
        t/storm.t t/clients.t) t/fuzz.pl

test-gpu: $(BUILD)/inferd $(BUILD)/t/gpu $(BUILD)/t/step
	$(BUILD)/t/gpu
	$(BUILD)/t/step t/golden/moe t/golden/dense t/golden/ple bench/configs/gemma-4-26B-A4B-it
	TEST_BUILD=$(BUILD) python3 t/gpu_score.py
	TEST_BUILD=$(BUILD) python3 t/gpu_cut.py

sanitize-gpu: $(BUILD)/t/gpu
	TEST_BUILD=$(BUILD) tools/sanitize-gpu

PREFIX     ?= /usr/local
MODULE_DIR ?= /usr/lib/nginx/modules
UNIT_DIR   ?= /lib/systemd/system
DOC_DIR    ?= $(PREFIX)/share/doc/inferd
install: all
	install -D -m 755 $(BUILD)/inferd $(DESTDIR)$(PREFIX)/bin/inferd
	install -D -m 644 $(MODULE) $(DESTDIR)$(MODULE_DIR)/ngx_http_infer_module.so
	install -d $(DESTDIR)$(UNIT_DIR) $(DESTDIR)/etc/inferd $(DESTDIR)$(DOC_DIR)/docs
	sed 's|@PREFIX@|$(PREFIX)|' 'conf/inferd@.service' > '$(DESTDIR)$(UNIT_DIR)/inferd@.service'
	install -D -m 644 conf/nginx-inferd.service.d/drain.conf \
	    $(DESTDIR)$(UNIT_DIR)/nginx.service.d/inferd-drain.conf
	install -D -m 644 conf/html/index.html $(DESTDIR)$(PREFIX)/share/inferd/html/index.html
	install -m 644 conf/inferd.env.example $(DESTDIR)/etc/inferd/example.env
	install -m 644 README.md $(DESTDIR)$(DOC_DIR)/README.md
	install -m 644 docs/*.md $(DESTDIR)$(DOC_DIR)/docs
	install -m 644 conf/inferd.example.conf $(DESTDIR)$(DOC_DIR)/nginx.example.conf
	sed -i -e 's|/usr/local/share/doc/inferd/|$(DOC_DIR)/|; t' -e 's|/usr/local/|$(PREFIX)/|' \
	    $(DESTDIR)$(DOC_DIR)/docs/nginx.md $(DESTDIR)$(DOC_DIR)/nginx.example.conf
	sed -i -e 's|\[\(bench/[^]]*\)\]([^)]*)|`\1` of the sources|' \
	    -e 's|conf/html/|$(PREFIX)/share/inferd/html/|; s|conf/grafana/inferd|$(DOC_DIR)/grafana|' \
	    -e 's|conf/nginx-inferd.service.d/|$(UNIT_DIR)/nginx.service.d/inferd-|' \
	    $(addprefix $(DESTDIR)$(DOC_DIR)/,README.md $(wildcard docs/*.md))
	install -m 644 conf/grafana/inferd.json $(DESTDIR)$(DOC_DIR)/grafana.json

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/inferd $(DESTDIR)$(MODULE_DIR)/ngx_http_infer_module.so \
	    $(DESTDIR)$(UNIT_DIR)/inferd@.service \
	    $(DESTDIR)$(UNIT_DIR)/nginx.service.d/inferd-drain.conf $(DESTDIR)/etc/inferd/example.env \
	    $(DESTDIR)$(PREFIX)/share/inferd/html/index.html $(DESTDIR)$(DOC_DIR)/README.md \
	    $(DESTDIR)$(DOC_DIR)/nginx.example.conf $(DESTDIR)$(DOC_DIR)/grafana.json \
	    $(addprefix $(DESTDIR)$(DOC_DIR)/,$(wildcard docs/*.md))

clean:
	rm -rf build

-include $(OBJS:.o=.d) $(GPU_PARTS:.o=.d) $(TESTS:=.d) $(BENCH:=.d) $(FUZZERS:=.d)

.PHONY: all module fuzzers fuzz tests helpers bench clean demo demo-stop test test-gpu \
        sanitize-gpu install uninstall
