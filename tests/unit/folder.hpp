// A folder for what a test writes.
#ifndef ISO_TESTS_UNIT_FOLDER_HPP
#define ISO_TESTS_UNIT_FOLDER_HPP

#include <catch2/catch.hpp>
#include <cstdlib>
#include <dirent.h>
#include <fstream>
#include <set>
#include <string>
#include <unistd.h>

// A folder of the test's own in TMPDIR, removed with the files in it.
class Folder {
  public:
    Folder()
    {
        const char *where = getenv("TMPDIR");
        path_ = std::string(where != nullptr ? where : "/tmp") + "/iso-test-XXXXXX";
        REQUIRE(mkdtemp(path_.data()) != nullptr);
    }
    ~Folder()
    {
        for (const std::string &file : files())
            unlink((path_ + "/" + file).c_str());
        rmdir(path_.c_str());
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    [[nodiscard]] std::string operator/(const std::string &name) const
    {
        return path_ + "/" + name;
    }
    [[nodiscard]] const std::string &path() const
    {
        return path_;
    }
    [[nodiscard]] std::set<std::string> files() const
    {
        std::set<std::string> names;
        DIR *folder = opendir(path_.c_str());
        for (const dirent *entry = nullptr; (entry = readdir(folder)) != nullptr;)
            if (entry->d_name[0] != '.')
                names.insert(entry->d_name);
        closedir(folder);
        return names;
    }

    void add(const std::string &name, const std::string &contents) const
    {
        std::ofstream(*this / name) << contents;
    }
    void link(const std::string &name, const std::string &target) const
    {
        REQUIRE(symlink(target.c_str(), (*this / name).c_str()) == 0);
    }

  private:
    std::string path_;
};

#endif
