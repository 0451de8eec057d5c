// The main() of test programs, for systems whose Catch2 package does not bring it compiled.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
